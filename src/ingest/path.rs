//! Where in an event a value stands.

use std::fmt::Write;

/// The longest rendered path, in bytes.
const PATH_BYTES: usize = 256;

/// The longest rendered key of a map, in bytes.
const KEY_BYTES: usize = 48;

/// A place below an event, such as `tool_executing.parameters.a.b[2]`. It lives on the stack of whoever walks the
/// event, and becomes a text only when there is something to say about the place.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    above: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// The event itself.
    Root,
    /// A field of a message.
    Field(&'static str),
    /// A key of a map, chosen by the producer.
    Key(&'a str),
    /// An element of a list.
    Index(usize),
}

impl<'a> Path<'a> {
    /// The event itself.
    pub(super) const ROOT: Path<'static> = Path {
        above: None,
        step: Step::Root,
    };

    /// The field `name` of the message at this place.
    pub(super) const fn field(&'a self, name: &'static str) -> Path<'a> {
        self.below(Step::Field(name))
    }

    /// The entry `key` of the map at this place.
    pub(super) const fn key(&'a self, key: &'a str) -> Path<'a> {
        self.below(Step::Key(key))
    }

    /// The element `index` of the list at this place.
    pub(super) const fn index(&'a self, index: usize) -> Path<'a> {
        self.below(Step::Index(index))
    }

    const fn below(&'a self, step: Step<'a>) -> Path<'a> {
        Path {
            above: Some(self),
            step,
        }
    }

    /// The path as text: ASCII without control characters, at most 256 bytes and `...`.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        if out.len() > PATH_BYTES {
            out.truncate(PATH_BYTES);
            out.push_str("...");
        }
        out
    }

    fn write(&self, out: &mut String) {
        if let Some(above) = self.above {
            above.write(out);
        }
        match self.step {
            Step::Root => {}
            Step::Field(name) => push_name(out, name),
            Step::Key(key) if is_plain(key) => push_name(out, key),
            Step::Key(key) => push_quoted(out, key),
            Step::Index(index) => {
                let _infallible = write!(out, "[{index}]");
            }
        }
    }
}

fn push_name(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}

/// A key that cannot be taken for anything else in a path.
fn is_plain(key: &str) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    !key.is_empty() && key.len() <= KEY_BYTES && key.bytes().all(name)
}

/// Any other key: quoted, escaped, and cut where it is long, since it comes from outside.
fn push_quoted(out: &mut String, key: &str) {
    out.push_str("[\"");
    let end = out.len() + KEY_BYTES;
    for escaped in key.chars().map(char::escape_default) {
        if out.len() + escaped.len() > end {
            out.push_str("...");
            break;
        }
        out.extend(escaped);
    }
    out.push_str("\"]");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_in_code_and_odd_keys_are_quoted() {
        let root = Path::ROOT;
        let parameters = root.field("parameters");
        let a = parameters.key("a");
        let items = a.field("items");
        let long = "k".repeat(100);
        let cases = [
            (root, String::new()),
            (parameters, "parameters".into()),
            (items.index(2), "parameters.a.items[2]".into()),
            (a.key("x.y"), r#"parameters.a["x.y"]"#.into()),
            (a.key(""), r#"parameters.a[""]"#.into()),
            (a.key("é\n\""), r#"parameters.a["\u{e9}\n\""]"#.into()),
            (
                a.key(&long),
                format!(r#"parameters.a["{}..."]"#, "k".repeat(48)),
            ),
        ];
        for (path, want) in cases {
            assert_eq!(path.render(), want);
        }
    }

    #[test]
    fn a_long_path_is_cut() {
        fn nest(path: &Path<'_>, levels: usize) -> String {
            match levels {
                0 => path.render(),
                _ => nest(
                    &path.key("forty_bytes_forty_bytes_forty_bytes_40"),
                    levels - 1,
                ),
            }
        }
        let path = nest(&Path::ROOT, 30);
        assert_eq!(path.len(), PATH_BYTES + 3);
        assert!(path.ends_with("..."));
    }
}
