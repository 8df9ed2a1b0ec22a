//! Limits as people write them on a command line and in the cells of a table.

use super::vocabulary::split_list;
use crate::domain::time::span_of_text;
use crate::domain::{Quota, RateLimit};

/// Reads `10/1s`, or `10/1s+20` where 20 may come at once.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub fn rate_limit_of_text(text: &str) -> Result<RateLimit, String> {
    // What stands there is not repeated: in a table whose columns are shifted it may be a key.
    let form = || "write 10/1s, 100/1m or 1000/1h; with +20 behind it, 20 may come at once".to_owned();
    let (requests, rest) = text.split_once('/').ok_or_else(form)?;
    let (per, burst) = rest.split_once('+').map_or((rest, None), |(per, burst)| (per, Some(burst)));
    let requests = requests.parse().map_err(|_| form())?;
    let per = span_of_text(per).map_err(|_| form())?;
    let burst = burst.map(str::parse).transpose().map_err(|_| form())?;
    RateLimit::new(requests, per, burst).map_err(|error| error.to_string())
}

/// Reads `1000/day`, `20000/month`, or both.
///
/// # Errors
/// What is wrong with it, and how to mend it.
pub fn quota_of_text(text: &str) -> Result<Quota, String> {
    let form = || "write 1000/day, 20000/month, or 1000/day,20000/month".to_owned();
    let (mut per_day, mut per_month) = (None, None);
    for part in split_list(text) {
        let (number, span) = part.split_once('/').ok_or_else(form)?;
        let place = match span {
            "day" => &mut per_day,
            "month" => &mut per_month,
            _ => return Err(form()),
        };
        *place = Some(number.parse().map_err(|_| form())?);
    }
    Quota::new(per_day, per_month).map_err(|error| error.to_string())
}
