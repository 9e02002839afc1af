//! The commands of the documentation: fenced blocks of a Markdown page, and what their info strings
//! say about running them.
//!
//! `sh` is run by bash, as one script, in the folder where the controller was started; it must exit
//! with 0. `terminal` is run line by line in the dashboard's terminal; what follows ` #` is a
//! remark. After the language may stand `skip="why"` (it is not run), or `until="text"` (it runs
//! for ever: it must say this text, and is then ended). Other languages are not commands.

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    /// The first word of its info string.
    pub language: String,
    /// Why it is not run.
    pub skip: Option<String>,
    /// What it says before it is ended.
    pub until: Option<String>,
    /// Its lines.
    pub text: String,
}

/// What stands under a page's heading of the second level.
///
/// # Panics
/// There is no such heading.
pub fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let mut sections = page.split("\n## ").skip(1);
    let found = sections.find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'));
    found.unwrap_or_else(|| panic!("the page has no heading {heading:?}"))
}

/// The blocks of a page.
///
/// # Panics
/// A fence is not closed, or an info string is not understood: a command would seem to be tested
/// that is not.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let mut block = parse_info(index + 1, info);
        let closed = lines.by_ref().find(|(_, line)| {
            let end = line.trim_start() == "```";
            if !end {
                block.text.push_str(line);
                block.text.push('\n');
            }
            end
        });
        assert!(closed.is_some(), "the fence of line {} is never closed", block.line);
        blocks.push(block);
    }
    blocks
}

fn parse_info(line: usize, info: &str) -> Block {
    let (language, mut rest) = info.trim().split_once(' ').unwrap_or((info.trim(), ""));
    let mut block = Block { line, language: language.to_owned(), skip: None, until: None, text: String::new() };
    while !rest.trim().is_empty() {
        let (name, value) =
            rest.trim_start().split_once("=\"").unwrap_or_else(|| panic!("line {line}: {rest:?} is not understood"));
        let (value, after) = value.split_once('"').unwrap_or_else(|| panic!("line {line}: a quote is not closed"));
        assert!(!value.is_empty(), "line {line}: {name} says nothing");
        match name {
            "skip" => block.skip = Some(value.to_owned()),
            "until" => block.until = Some(value.to_owned()),
            other => panic!("line {line}: {other} is not understood"),
        }
        rest = after;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_what_is_said_about_them() {
        let page =
            "a\n```sh\none\ntwo\n```\n- b\n  ```sh until=\"x y\" skip=\"why\"\n  three\n  ```\n```\nplain\n```\n";
        let found = blocks(page);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].line, &found[0].text[..]), (2, "one\ntwo\n"));
        assert_eq!((found[1].until.as_deref(), found[1].skip.as_deref()), (Some("x y"), Some("why")));
        assert_eq!(found[2].language, "");
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let page = "# T\n\n## One\n\na\n### deeper\nb\n\n## One more\nc\n";
        assert_eq!(section(page, "One"), "\na\n### deeper\nb\n");
        assert_eq!(section(page, "One more"), "c\n");
    }

    #[test]
    #[should_panic(expected = "not understood")]
    fn a_mark_that_is_misspelt_is_no_mark() {
        blocks("```sh skips=\"x\"\n```\n");
    }
}
