//! Colours, where they are wanted.

/// Paints text, or leaves it plain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    colored: bool,
}

impl Paint {
    pub(crate) fn new(colored: bool) -> Self {
        Paint { colored }
    }

    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Paint::new(false)
    }

    pub(crate) fn is_colored(self) -> bool {
        self.colored
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn red_bold(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn yellow_bold(self, text: &str) -> String {
        self.with("1;33", text)
    }

    pub(crate) fn blue_bold(self, text: &str) -> String {
        self.with("1;34", text)
    }

    pub(crate) fn cyan_bold(self, text: &str) -> String {
        self.with("1;36", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}
