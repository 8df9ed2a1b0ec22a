//! Waiting on facts. Owns the patience factor; must not know what is waited for.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How often a fact is looked at.
const PERIOD: Duration = Duration::from_millis(5);

/// How much slower than a quiet machine this one is: `PORTCULLIS_TEST_PATIENCE`, at least 1, default 1.
pub fn patience() -> f64 {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        std::env::var("PORTCULLIS_TEST_PATIENCE")
            .ok()
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|factor| factor.is_finite())
            .map_or(1.0, |factor| factor.max(1.0))
    })
}

/// `duration` times the patience factor: for upper bounds only.
pub fn patient(duration: Duration) -> Duration {
    duration.mul_f64(patience())
}

/// Something that may not hold yet: `false`, `None` and `Err` mean "look again".
pub trait Fact {
    /// What is known once it holds.
    type Value;
    /// The value, if the fact holds.
    fn settled(self) -> Option<Self::Value>;
}

impl Fact for bool {
    type Value = ();
    fn settled(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Fact for Option<T> {
    type Value = T;
    fn settled(self) -> Self {
        self
    }
}

impl<T, E> Fact for Result<T, E> {
    type Value = T;
    fn settled(self) -> Option<T> {
        self.ok()
    }
}

/// Looks until the fact holds and returns its value and how long that took.
///
/// # Panics
/// When it does not hold within `within` times the patience factor.
pub async fn wait_for<F: Fact>(
    claim: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> F,
) -> (F::Value, Duration) {
    let started = Instant::now();
    let limit = patient(within);
    loop {
        if let Some(value) = look().await.settled() {
            return (value, started.elapsed());
        }
        assert!(started.elapsed() < limit, "within {limit:?} it never became true that {claim}");
        tokio::time::sleep(PERIOD).await;
    }
}

/// Waits until an expression (`bool`, `Option` or `Result`, may `.await`) holds, and gives its value.
///
/// `eventually!("the key is known", client.get("/").await.status == 200)`; ten seconds unless
/// `eventually!("…", within Duration::from_millis(250), …)` says otherwise; times the patience factor.
#[macro_export]
macro_rules! eventually {
    ($claim:expr, within $limit:expr, $look:expr) => {
        $crate::patience::wait_for(&$claim, $limit, async || $look).await.0
    };
    ($claim:expr, $look:expr) => {
        $crate::patience::wait_for(&$claim, ::std::time::Duration::from_secs(10), async || $look).await.0
    };
}
