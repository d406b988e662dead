//! What several turns of one measurement come to.

/// The middle one, the least and the greatest.
pub(crate) fn spread(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    let (half, last) = (figures.len() / 2, figures.len() - 1);
    let median = f64::midpoint(figures[last - half], figures[half]);
    (median, figures[0], figures[last])
}
