//! The README's tables say what the code says.

use std::{fmt::Write as _, fs, path::Path};

use emitter::{config::REFERENCE, reason::Reason};

#[test]
fn the_table_of_reasons_is_the_codes() {
    let mut table =
        String::from("| reason | gRPC code | close code, HTTP | meaning |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let of_streams = match reason.of_streams() {
            Some((close, http)) => format!("{close}, {http}"),
            None => String::new(),
        };
        let code = upper_snake(&format!("{:?}", reason.code()));
        let (name, meaning) = (reason.name(), reason.meaning());
        writeln!(table, "| `{name}` | {code} | {of_streams} | {meaning} |").unwrap();
    }
    assert_section("reasons", &table);
}

#[test]
fn the_reference_of_settings_is_the_codes() {
    assert_section("config", &format!("```toml\n{REFERENCE}```\n"));
}

/// Checks what stands between `<!-- name -->` and `<!-- /name -->`.
fn assert_section(name: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).unwrap();
    let after = readme.split_once(&format!("<!-- {name} -->\n"));
    let section = after.and_then(|(_, rest)| rest.split_once(&format!("<!-- /{name} -->")));
    let (found, _) = section.unwrap_or_else(|| panic!("the README has no section {name}"));
    assert_eq!(found, want, "the README's section {name} must be:\n{want}");
}

fn upper_snake(camel: &str) -> String {
    let mut text = String::new();
    for (n, c) in camel.chars().enumerate() {
        if c.is_uppercase() && n > 0 {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}
