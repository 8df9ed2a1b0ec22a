//! Panics on demand, for the tests that show what a panic costs. No release has them: without debug assertions there is
//! nothing here, and with them only where the environment says so.

/// A place that can be made to panic.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tripwire {
    /// Before the decision.
    Begin,
    /// Between the decision and the upstream.
    Forward,
    /// A request's body on its way up.
    Upload,
    /// An answer's body on its way down.
    Download,
}

impl Tripwire {
    /// Panics, with what it saw in its message, when that contains the words `panic in <place>`, and
    /// `PORTCULLIS_TEST_TRIPWIRES` is set. In a release it does nothing.
    #[inline]
    pub(super) fn sees<'a>(self, seen: impl IntoIterator<Item = &'a [u8]>) {
        #[cfg(debug_assertions)]
        self.look(&seen.into_iter().collect::<Vec<_>>().join(&b'\n'));
        #[cfg(not(debug_assertions))]
        let _ = (self, seen);
    }

    #[cfg(debug_assertions)]
    fn look(self, seen: &[u8]) {
        static IS_SET: std::sync::LazyLock<bool> =
            std::sync::LazyLock::new(|| std::env::var_os("PORTCULLIS_TEST_TRIPWIRES").is_some());
        let words = match self {
            Self::Begin => "panic in begin",
            Self::Forward => "panic in forward",
            Self::Upload => "panic in upload",
            Self::Download => "panic in download",
        };
        let is_tripped = *IS_SET && memchr::memmem::find(seen, words.as_bytes()).is_some();
        assert!(!is_tripped, "{}", String::from_utf8_lossy(seen));
    }
}
