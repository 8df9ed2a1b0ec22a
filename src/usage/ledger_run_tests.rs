//! When notes are written, and what becomes of them while a store takes long or takes nothing.

use super::*;

/// A store that takes what it is given in its own way.
struct Odd {
    store: Arc<Store>,
    takes: Duration,
    fails_to_mark: AtomicBool,
    fails_to_note: AtomicBool,
    /// Questions that were asked.
    asked: AtomicUsize,
}

impl Odd {
    fn of(desk: &mut Desk, takes: Duration) -> Arc<Self> {
        let store = Arc::clone(&desk.store);
        let no = AtomicBool::default;
        let odd = Self { store, takes, fails_to_mark: no(), fails_to_note: no(), asked: AtomicUsize::default() };
        let odd = Arc::new(odd);
        (desk.ledger.writer, desk.ledger.book) = (Arc::clone(&odd) as _, Arc::clone(&odd) as _);
        odd
    }

    async fn take(&self, fails: &AtomicBool) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.takes).await;
        if fails.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { doing: "taking it".to_owned(), source: "it does not".into() });
        }
        Ok(())
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl KeyWriter for Odd {
    fn submit(&self, order: Order) -> Answer<'_, Effect> {
        self.store.writer().submit(order)
    }

    fn mark_used(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        Box::pin(async move {
            self.take(&self.fails_to_mark).await?;
            self.store.writer().mark_used(uses).await
        })
    }
}

impl UsageBook for Odd {
    fn note_usage(&self, notes: UsageNotes) -> Answer<'_, Vec<NewNetwork>> {
        Box::pin(async move {
            self.take(&self.fails_to_note).await?;
            self.store.usage().note_usage(notes).await
        })
    }

    fn note_events(&self, id: AdditionId, events: Vec<NewEvent>) -> Answer<'_, Vec<bool>> {
        Box::pin(async move {
            self.take(&self.fails_to_note).await?;
            self.store.usage().note_events(id, events).await
        })
    }

    fn tidy_usage(&self, retention: Duration, now: Timestamp) -> Answer<'_, Tidied> {
        self.store.usage().tidy_usage(retention, now)
    }

    fn key_usage(&self, query: UsageQuery) -> Answer<'_, KeyUsage> {
        self.store.usage().key_usage(query)
    }

    fn rules_passed(&self, keys: Vec<KeyId>) -> Answer<'_, Vec<(KeyId, Arc<str>)>> {
        self.store.usage().rules_passed(keys)
    }

    fn findings(&self) -> Answer<'_, Vec<Finding>> {
        self.store.usage().findings()
    }

    fn list_events(&self, query: EventQuery) -> Answer<'_, Vec<UsageEvent>> {
        self.store.usage().list_events(query)
    }

    fn counted_since(&self) -> Answer<'_, Option<Timestamp>> {
        self.store.usage().counted_since()
    }
}

#[tokio::test]
async fn last_use_that_is_not_taken_is_kept_and_keeps_nothing_else_back() {
    let mut desk = Desk::new();
    let first = with_key(&desk.store).await;
    let odd = Odd::of(&mut desk, Duration::ZERO);
    odd.fails_to_mark.store(true, Ordering::Relaxed);
    desk.tally.mark(0, first, NOW);
    desk.count(Passage::Allowed, 2);
    desk.ledger.flush(NOW).await.unwrap_err();
    assert_eq!(desk.usage().await.totals, [(Passage::Allowed, 200, 2)]);
    odd.fails_to_mark.store(false, Ordering::Relaxed);
    desk.ledger.flush(NOW).await.unwrap();
    assert_eq!(last_used(&desk.store, first).await, Some(NOW));
}

/// Marks so many keys as used that one worker may run out of room.
fn fill(tally: &Tally) -> usize {
    let filling = tally.room() / 2 / 4 * 3;
    (0..filling).for_each(|number| tally.mark(0, numbered(number), NOW));
    assert!(tally.is_filling());
    filling
}

#[tokio::test]
async fn what_comes_while_something_is_written_has_room() {
    let mut desk = Desk::new();
    desk.count(Passage::Allowed, 1);
    desk.ledger.gather(NOW);
    let filling = fill(&desk.tally);
    desk.ledger.note().await.unwrap();
    assert!(!desk.tally.is_filling() && desk.ledger.pending.len() == filling);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_store_hangs_has_room() {
    let mut desk = Desk::new();
    Odd::of(&mut desk, 10 * LOOK);
    desk.tally.mark(0, key(), NOW);
    desk.ledger.keep_events(vec![event(EventKind::ManyRefusals, key(), None, NOW, String::new(), APART)]);
    desk.ledger.gather(NOW);
    let tally = Arc::clone(&desk.tally);
    let writing = tokio::spawn(async move {
        desk.ledger.mark_used().await.unwrap();
        desk.ledger.tell().await
    });
    // Both take so long.
    for _ in 0..9 {
        fill(&tally);
        tokio::time::sleep(2 * LOOK).await;
        assert!(!tally.is_filling() && !writing.is_finished());
    }
    writing.await.unwrap().unwrap();
    assert_eq!((tally.dropped(), tally.dropped_marks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn notes_are_written_at_every_interval_and_once_more_in_the_end() {
    let Desk { ledger, store, tally, .. } = Desk::new();
    let (stop, told) = tokio::sync::oneshot::channel();
    let count = |requests| {
        tally.count(0, Counted::new(key(), RuleName::OTHER, Passage::Allowed, NOW).answered(200), requests);
    };
    let writing = tokio::spawn(ledger.run(Duration::from_secs(30), told));
    for written in 0..3 {
        count(1);
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert_eq!(total(&store, key()).await, written);
        tokio::time::sleep(Duration::from_secs(1) + LOOK).await;
        assert_eq!(total(&store, key()).await, written + 1);
    }
    count(4);
    drop(stop);
    writing.await.unwrap();
    assert_eq!(total(&store, key()).await, 7);
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_is_written_seldom_and_the_unusual_told_meanwhile() {
    let mut desk = Desk::new();
    let second = Duration::from_secs(1);
    Odd::of(&mut desk, 2 * second);
    // As many counts as go at once, of keys that nothing else is known of.
    desk.count_of_each(BATCH);
    let began = Instant::now();
    let Desk { ledger, store, tally, .. } = desk;
    let (_stop, told) = tokio::sync::oneshot::channel();
    tokio::spawn(ledger.run(30 * second, told));
    tokio::time::sleep(40 * second).await;
    tally.count(0, Counted::new(key(), RuleName::OTHER, Passage::Allowed, NOW).answered(200), 1);
    let leak = Visitor {
        key: key(),
        kind: KeyKind::Secret,
        address: None,
        agent: None,
        is_browser_leak: true,
        is_accepted: false,
        at: NOW,
    };
    tally.visit(0, &leak);
    let events = async || store.usage().list_events(EventQuery { key: None, limit: 9 }).await.unwrap().len();
    tokio::time::sleep(25 * second).await;
    assert_eq!((total(&store, key()).await, events().await), (0, 1));
    // Two seconds are a fortieth of eighty, which began at thirty-two.
    tokio::time::sleep_until(began + 111 * second).await;
    assert_eq!(total(&store, key()).await, 0);
    tokio::time::sleep_until(began + 116 * second).await;
    assert_eq!(total(&store, key()).await, 1);
}

#[tokio::test(start_paused = true)]
async fn much_is_written_before_its_time() {
    let Desk { ledger, store, tally, .. } = Desk::new();
    let first = with_key(&store).await;
    let (_stop, told) = tokio::sync::oneshot::channel();
    tokio::spawn(ledger.run(Duration::from_secs(3_600), told));
    tally.mark(0, first, NOW);
    tokio::time::sleep(4 * LOOK).await;
    assert_eq!(last_used(&store, first).await, None);
    fill(&tally);
    tokio::time::sleep(2 * LOOK).await;
    assert_eq!(last_used(&store, first).await, Some(NOW));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_asked_now_and_then_and_given_everything_when_it_is_back() {
    let mut desk = Desk::new();
    let first = with_key(&desk.store).await;
    let odd = Odd::of(&mut desk, Duration::ZERO);
    let fail = |fails| [&odd.fails_to_mark, &odd.fails_to_note].map(|flag| flag.store(fails, Ordering::Relaxed));
    fail(true);
    let Desk { ledger, store, tally, .. } = desk;
    let (_stop, told) = tokio::sync::oneshot::channel();
    tokio::spawn(ledger.run(Duration::from_secs(3_600), told));
    let leak = Visitor {
        key: first,
        kind: KeyKind::Secret,
        address: None,
        agent: None,
        is_browser_leak: true,
        is_accepted: true,
        at: NOW,
    };
    tally.visit(0, &leak);
    fill(&tally);
    tokio::time::sleep(3 * LOOK).await;
    assert_eq!(odd.asked(), 3, "last use, usage, events");
    // However full it is.
    for _ in 0..8 {
        fill(&tally);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(odd.asked(), 0);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(odd.asked(), 3);
    fail(false);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(last_used(&store, first).await, Some(NOW));
    assert_eq!(store.usage().list_events(EventQuery { key: None, limit: 9 }).await.unwrap().len(), 1);
    assert_eq!((tally.dropped(), tally.dropped_marks()), (0, 0));
}
