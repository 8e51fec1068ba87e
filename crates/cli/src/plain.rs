//! Texts from elsewhere on a terminal: of servers, of clusters, of whoever may write an object's message.

/// Whether a terminal would do something for it instead of showing it, or show what follows it in another order.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// On one line, as many characters as before: a space stands for each that would not be shown.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_obeyed(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected, "{text:?}");
        check("ready: 1 of 2", "ready: 1 of 2");
        check("prêt ✓", "prêt ✓");
        check("\u{1b}]0;owned\u{7}x", " ]0;owned x");
        check("\u{9b}2J\u{7f}", " 2J ");
        check("a\tb\r\nc", "a b  c");
        check("a\u{202e}b\u{2066}c", "a b c");
    }
}
