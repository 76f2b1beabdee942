//! Text from outside, as it may be shown.

/// A text from outside, without what would move the cursor, or hide or reorder what is shown: names, labels and messages
/// may hold anything, and a terminal obeys it.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for char in text.chars() {
        if is_unsafe_to_show(char) {
            printable.extend(char.escape_default());
        } else {
            printable.push(char);
        }
    }
    printable
}

/// Control characters of C0 and C1, marks of direction, and what has no width.
pub(super) fn is_unsafe_to_show(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        for (text, shown) in [
            ("wal/00000003", "wal/00000003"),
            ("\u{1b}]0;x\u{7}", "\\u{1b}]0;x\\u{7}"),
            ("a\nb\rc\td\u{8}", "a\\nb\\rc\\td\\u{8}"),
            ("\u{9b}2J\u{9d}0;x\u{9c}", "\\u{9b}2J\\u{9d}0;x\\u{9c}"),
            ("\u{202e}cba\u{2066}\u{61c}\u{200f}", "\\u{202e}cba\\u{2066}\\u{61c}\\u{200f}"),
            ("caf\u{e9} \u{65e5}\u{672c}", "caf\u{e9} \u{65e5}\u{672c}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
