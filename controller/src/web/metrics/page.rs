//! A page of metrics: each family is declared once, before its values.

use std::fmt::Write;

/// A page that is being written.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Declares a family of this kind (`gauge`, `counter`, `histogram`).
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One value of the family that was declared last.
    pub(super) fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escape(text));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family with one value and no labels.
    pub(super) fn only(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.value(name, &[], value);
    }

    /// The page's text.
    pub(super) fn text(self) -> String {
        self.0
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A count as Prometheus has it.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has only floating-point numbers")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_from_outside_stay_labels() {
        let mut page = Page::default();
        page.value("a", &[("label", "x\"} 1\ny\\")], 1.5);
        assert_eq!(page.0, "a{label=\"x\\\"} 1\\ny\\\\\"} 1.5\n");
        page.value("b", &[], 2.0);
        assert!(page.0.ends_with("\nb 2\n"));
    }
}
