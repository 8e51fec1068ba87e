//! Whether a node gets flows, by what its probes say.

/// So many failures in a row are not chance.
pub(super) const DOWN_AFTER: u8 = 3;

/// A node's, at one port. It is not healthy until it has said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Health {
    up: bool,
    failures: u8,
}

impl Health {
    pub(super) const fn is_up(self) -> bool {
        self.up
    }

    /// Once more healthy or not.
    pub(super) fn heard(&mut self, healthy: bool) {
        self.failures = if healthy { 0 } else { self.failures.saturating_add(1) };
        self.up = healthy || (self.up && self.failures < DOWN_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_at_once_and_down_after_three() {
        #[track_caller]
        fn check(heard: &str, up: bool) {
            let mut health = Health::default();
            heard.chars().for_each(|word| health.heard(word == '+'));
            assert_eq!(health.is_up(), up, "{heard}");
        }
        check("", false);
        check("+", true);
        check("-", false);
        check("+--", true);
        check("+---", false);
        check("+--+--", true);
        check("+---+", true);
        check(&format!("+{}", "-".repeat(1_000)), false);
    }
}
