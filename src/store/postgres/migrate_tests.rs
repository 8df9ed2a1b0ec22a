use super::*;
use crate::domain::time;
use crate::store::fixtures::Place;
use crate::store::postgres::postgres_tests::in_session;

const ONE: Migration = Migration { name: "one", sql: "CREATE TABLE portcullis.one (a int)" };
const TWO: Migration = Migration { name: "two", sql: "CREATE TABLE portcullis.two (b int)" };
const BROKEN: Migration = Migration { name: "broken", sql: "CREATE TABLE portcullis.three (c int); SELECT 1 / 0" };

fn address() -> PostgresAddress {
    PostgresAddress::parse("postgres://pc@db.test/keys", std::path::Path::new("/")).unwrap()
}

#[tokio::test]
async fn steps_are_taken_once_and_a_broken_one_leaves_nothing() {
    let Some(place) = Place::postgres() else { return };
    in_session(&place, async |session| {
        let address = address();
        assert_eq!(look(session, &[ONE]).await.unwrap(), State::Absent);
        assert_eq!(migrate(session, &[ONE], &address, time::now()).await.unwrap(), 1);
        assert_eq!(migrate(session, &[ONE], &address, time::now()).await.unwrap(), 0);
        assert_eq!(look(session, &[ONE, TWO]).await.unwrap(), State::Older(1));
        migrate(session, &[ONE, TWO, BROKEN], &address, time::now()).await.unwrap_err();
        session.leave_transaction().await;
        assert_eq!(look(session, &[ONE, TWO]).await.unwrap(), State::Older(1), "all steps or none");
        assert_eq!(migrate(session, &[ONE, TWO], &address, time::now()).await.unwrap(), 1);
        assert_eq!(look(session, &[ONE, TWO]).await.unwrap(), State::Known);
        assert_eq!(look(session, &[ONE]).await.unwrap(), State::Newer(2));
        let other = Migration { name: "two", sql: "CREATE TABLE portcullis.two (c int)" };
        assert!(matches!(look(session, &[ONE, other]).await.unwrap(), State::Odd(found) if found.contains("`two`")));
    })
    .await;
}

#[tokio::test]
async fn tables_of_somebody_else_are_left_alone() {
    let Some(place) = Place::postgres() else { return };
    in_session(&place, async |session| {
        session.run("CREATE SCHEMA portcullis; CREATE TABLE portcullis.theirs (a int)").await.unwrap();
        let fault = migrate(session, STEPS, &address(), time::now()).await.unwrap_err();
        assert!(matches!(fault, Fault::Odd(found) if found.contains("not portcullis's")));
    })
    .await;
}
