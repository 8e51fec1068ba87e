//! Text from outside, made fit for a log line, a metric of the user's backend or a terminal.

/// Whether a character may change how the text around it is shown: control characters (C0, DEL, C1), line and
/// paragraph separators, and the invisible directional marks that reorder what a reader sees (Unicode TR 36, 3.2).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The text without hidden characters.
pub(crate) fn strip_hidden(text: &str) -> String {
    text.chars().filter(|c| !is_hidden(*c)).collect()
}

/// The text without hidden characters, cut after `max` characters: for error details, where a prefix is enough.
pub(crate) fn excerpt(text: &str, max: usize) -> String {
    text.chars().filter(|c| !is_hidden(*c)).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_go_and_text_stays() {
        fn check(input: &str, expected: &str) {
            assert_eq!(strip_hidden(input), expected, "{input:?}");
        }
        check("plain", "plain");
        check("a\0b\nc\td\u{7f}e\u{85}f", "abcdef");
        check("ab\u{202e}cd\u{2066}\u{feff}\u{200b}", "abcd");
        check("Zoë 李 👋", "Zoë 李 👋");
    }

    #[test]
    fn an_excerpt_counts_what_is_shown() {
        assert_eq!(excerpt("\n\nabcdef", 3), "abc");
    }
}
