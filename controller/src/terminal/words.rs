//! Words of a line, with quotes.
//!
//! `"` opens a quote anywhere, and in it `\"` and `\\` stand for themselves. `'` opens one only
//! where a word or a value begins, so that `Anna's Pi` needs no care. Outside of quotes a backslash
//! is a backslash.

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its text, without quotes.
    pub text: String,
    /// Whether it begins with a quote.
    pub quoted: bool,
    /// Where it begins in the line, in bytes.
    pub start: usize,
    /// Where it ends in the line, in bytes.
    pub end: usize,
}

/// The words of a line.
///
/// # Errors
/// A quote is not closed.
pub fn split(line: &str) -> Result<Vec<Word>, String> {
    match scan(line) {
        (words, None) => Ok(words),
        (_, Some(quote)) => Err(format!("a quote is not closed: there is a {quote} without its partner")),
    }
}

/// A text as one word, quoted if it must be.
pub fn quote(text: &str) -> String {
    let plain = !text.is_empty()
        && !text.starts_with(['\'', '-', '@'])
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '='));
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

/// The words of a line as far as they go, and the quote that is still open at its end.
pub(super) fn scan(line: &str) -> (Vec<Word>, Option<char>) {
    let mut words: Vec<Word> = Vec::new();
    let mut open: Option<char> = None;
    let mut in_word = false;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if open.is_none() && c.is_whitespace() {
            in_word = false;
            continue;
        }
        if !in_word {
            words.push(Word { text: String::new(), quoted: matches!(c, '"' | '\''), start: at, end: at });
            in_word = true;
        }
        let Some(word) = words.last_mut() else { continue };
        word.end = at + c.len_utf8();
        match open {
            Some(quote) if c == quote => open = None,
            Some('"') if c == '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((at, next)) => {
                    word.text.push(next);
                    word.end = at + 1;
                }
                None => word.text.push(c),
            },
            None if c == '"' || (c == '\'' && opens_here(word, at)) => open = Some(c),
            _ => word.text.push(c),
        }
    }
    (words, open)
}

fn opens_here(word: &Word, at: usize) -> bool {
    word.start == at || word.text.ends_with('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_are_split_at_blanks_outside_of_quotes() {
        for (line, expected) in [
            ("", vec![]),
            ("  ", vec![]),
            ("task list", vec!["task", "list"]),
            ("  task\tlist  ", vec!["task", "list"]),
            ("assign name \"Rack Pi 1\" 'Garage Door'", vec!["assign", "name", "Rack Pi 1", "Garage Door"]),
            ("a=\"b c\" d='e f'", vec!["a=b c", "d=e f"]),
            (r#""say \"hi\" \\ \n""#, vec![r#"say "hi" \ \n"#]),
            ("Anna's Pi", vec!["Anna's", "Pi"]),
            (r"a\ b", vec![r"a\", "b"]),
            ("\"\"", vec![""]),
            ("küche 🍓 pi", vec!["küche", "🍓", "pi"]),
        ] {
            assert_eq!(texts(line), expected, "{line:?}");
        }
    }

    #[test]
    fn an_open_quote_is_an_error() {
        for line in ["\"abc", "a 'b", "x=\""] {
            assert!(split(line).unwrap_err().contains("not closed"), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_quoted_text_is_one_word_again(text in "\\PC*") {
            let words = split(&format!("a {} b", quote(&text))).unwrap();
            proptest::prop_assert_eq!(words.len(), 3);
            proptest::prop_assert_eq!(&words[1].text, &text);
        }

        #[test]
        fn words_lie_within_the_line(line in ".{0,60}") {
            let (words, _) = scan(&line);
            for word in words {
                proptest::prop_assert!(line.get(word.start..word.end).is_some());
            }
        }
    }
}
