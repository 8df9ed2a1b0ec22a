use futures_util::FutureExt;

use super::*;

#[tokio::test]
async fn one_works_and_owners_leave_room_for_operators() {
    let turns = Turns::default();
    let owners = turns.take(false).await.unwrap();
    let mut second = Box::pin(turns.take(false));
    assert!(second.as_mut().now_or_never().is_none(), "it waits");
    assert!(turns.take(false).await.is_none(), "no more of them wait");
    let mut operators = Box::pin(turns.take(true));
    assert!(operators.as_mut().now_or_never().is_none(), "it waits");
    drop(owners);
    let second = second.await.unwrap();
    assert!(operators.as_mut().now_or_never().is_none(), "one at a time");
    drop(second);
    let operators = operators.await.unwrap();
    assert!(turns.take(true).await.is_none(), "nobody waits for ever");
    drop(operators);
    assert!(turns.take(false).await.is_some());
}
