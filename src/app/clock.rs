//! Tells when the wall clock is not followed.

use std::time::Duration;

use crate::domain::clock::deciding_now;
use crate::domain::time;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What clocks may differ by without a word.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// Says once when the wall clock went back, and when decisions go by it again; for ever.
pub(super) async fn watch() {
    let mut is_held = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let ahead = deciding_now().since(time::now());
        let was_held = std::mem::replace(&mut is_held, ahead > WORTH_TELLING);
        match (was_held, is_held) {
            (false, true) => tracing::warn!(
                seconds = ahead.as_secs(),
                "the wall clock went back; expired keys stay expired, and decisions go by a clock that is ahead of it \
                 until it is there again or this gateway is restarted"
            ),
            (true, false) => tracing::info!("decisions go by the wall clock again"),
            (true, true) | (false, false) => {}
        }
    }
}
