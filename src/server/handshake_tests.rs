//! Turns: their order, what happens between them, and who gives way.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::{spawn_local, yield_now};

use super::handshake::{GaveWay, Handshakes};
use crate::domain::time::monotonic_now;

/// Runs on a runtime like a worker's.
fn on_a_worker<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap().block_on(work)
}

/// Keeps the thread busy.
fn burn(span: Duration) -> Duration {
    let begun = monotonic_now();
    while begun.elapsed() < span {}
    begun.elapsed()
}

type Log = Rc<RefCell<Vec<&'static str>>>;

/// A handshake that takes one turn for each word, waits for its client after every one but the last, and is answered at
/// once.
async fn shake(gate: Rc<Handshakes>, log: Log, words: Vec<&'static str>) -> Result<(), GaveWay> {
    let mut words = words.into_iter().peekable();
    let work = poll_fn(move |cx| {
        log.borrow_mut().push(words.next().unwrap());
        if words.peek().is_none() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    gate.take_turns(usize::MAX, work).await
}

#[test]
fn turns_are_taken_in_order_and_finishing_comes_before_beginning() {
    on_a_worker(async {
        let (gate, log) = (Handshakes::start(), Log::default());
        let all = [vec!["a1", "a2"], vec!["b1", "b2", "b3"], vec!["c1"]]
            .map(|words| spawn_local(shake(Rc::clone(&gate), Rc::clone(&log), words)));
        for one in all {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
        assert_eq!(*log.borrow(), ["a1", "a2", "b1", "b2", "b3", "c1"]);
    });
}

#[test]
fn clients_that_drip_their_handshakes_do_not_keep_new_ones_out() {
    on_a_worker(async {
        let (gate, log) = (Handshakes::start(), Log::default());
        let drip = || spawn_local(shake(Rc::clone(&gate), Rc::clone(&log), vec!["drip"; 1000]));
        let drips: Vec<_> = (0..10).map(|_| drip()).collect();
        while log.borrow().len() < 50 {
            yield_now().await;
        }
        let before = log.borrow().len();
        shake(Rc::clone(&gate), Rc::clone(&log), vec!["new"]).await.unwrap();
        let waited = log.borrow().iter().position(|word| *word == "new").unwrap() - before;
        assert!(waited <= 6, "{waited} turns");
        drips.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

#[test]
fn what_is_ready_runs_between_any_two_turns() {
    on_a_worker(async {
        let (gate, log) = (Handshakes::start(), Log::default());
        let requests = spawn_local({
            let log = Rc::clone(&log);
            async move {
                loop {
                    log.borrow_mut().push("request");
                    yield_now().await;
                }
            }
        });
        let flood: Vec<_> =
            (0..100).map(|_| spawn_local(shake(Rc::clone(&gate), Rc::clone(&log), vec!["turn"]))).collect();
        for one in flood {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
        requests.abort();
        let log = log.borrow();
        assert_eq!(log.iter().filter(|word| **word == "turn").count(), 100);
        assert!(log.windows(2).all(|two| two != ["turn", "turn"]), "{log:?}");
    });
}

#[test]
fn turns_take_half_of_the_time_while_others_have_work() {
    on_a_worker(async {
        let (gate, done) = (Handshakes::start(), Rc::new(Cell::new(false)));
        let requests = spawn_local({
            let done = Rc::clone(&done);
            async move {
                let mut worked = Duration::ZERO;
                while !done.get() {
                    worked += burn(Duration::from_micros(50));
                    yield_now().await;
                }
                worked
            }
        });
        let flood: Vec<_> = (0..100)
            .map(|_| {
                let gate = Rc::clone(&gate);
                spawn_local(async move {
                    gate.take_turns(usize::MAX, async { burn(Duration::from_micros(200)) }).await.unwrap()
                })
            })
            .collect();
        let mut turns = Duration::ZERO;
        for one in flood {
            turns += one.await.unwrap();
        }
        done.set(true);
        let worked = requests.await.unwrap();
        // A plain turn about would give them a quarter of what turns take.
        assert!(worked.as_secs_f64() > 0.6 * turns.as_secs_f64(), "{worked:?} beside {turns:?} of turns");
    });
}

#[test]
fn beyond_the_bound_the_one_that_waits_longest_for_its_client_gives_way() {
    on_a_worker(async {
        let gate = Handshakes::start();
        let stalled: Vec<_> = (0..4)
            .map(|_| {
                let gate = Rc::clone(&gate);
                spawn_local(async move { gate.take_turns(3, pending::<()>()).await })
            })
            .collect();
        let mut stalled = stalled.into_iter();
        assert_eq!(stalled.next().unwrap().await.unwrap(), Err(GaveWay));
        // One that ends makes room.
        let second = stalled.next().unwrap();
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        let newcomer = spawn_local({
            let gate = Rc::clone(&gate);
            async move { gate.take_turns(3, pending::<()>()).await }
        });
        assert_eq!(gate.take_turns(3, async { 7 }).await, Ok(7));
        assert!(stalled.all(|one| !one.is_finished()) && !newcomer.is_finished());
    });
}

#[test]
fn a_place_that_is_given_up_holds_up_nobody() {
    on_a_worker(async {
        let gate = Handshakes::start();
        // Given up in the line, with the turn, and while waiting for the client.
        for polls in 0..6 {
            let mut given_up = Box::pin(gate.take_turns(8, pending::<()>()));
            for _ in 0..polls {
                poll_fn(|cx| {
                    assert!(given_up.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
                yield_now().await;
            }
            drop(given_up);
            let next = pin!(gate.take_turns(8, async { polls }));
            assert_eq!(next.await, Ok(polls));
        }
    });
}
