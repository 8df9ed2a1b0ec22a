//! One connection: statements, prepared once or not at all, and transactions.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::fault::Fault;
use crate::store::settings::Pooler;

/// A statement and the types of its parameters.
pub(super) struct Sql {
    text: &'static str,
    types: &'static [Type],
}

impl Sql {
    pub(super) const fn new(text: &'static str, types: &'static [Type]) -> Self {
        Self { text, types }
    }
}

/// What stands for the parameters of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How long the server lets a transaction of ours wait for us: whoever stops half-way holds up everybody's writes.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(15);
/// How much longer than the server's own bound an answer may take, before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(2);

/// An open connection.
pub(super) struct Session {
    client: Client,
    prepared: HashMap<&'static str, Statement>,
    pooler: Pooler,
    /// How long a statement may take.
    statement_timeout: Duration,
    patience: Duration,
    /// What keeps it from being used again.
    state: State,
    /// Whether anything was answered since it was last handed out.
    pub(super) has_answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    InTransaction,
    Broken,
}

impl Session {
    pub(super) fn new(client: Client, pooler: Pooler, statement_timeout: Duration) -> Self {
        Self {
            client,
            prepared: HashMap::new(),
            pooler,
            statement_timeout,
            patience: statement_timeout + GRACE,
            state: State::Idle,
            has_answered: false,
        }
    }

    /// Whether the next one may use it.
    pub(super) fn is_good(&self) -> bool {
        self.state == State::Idle && !self.client.is_closed()
    }

    /// Made ready for another use.
    pub(super) fn renew(&mut self) {
        self.has_answered = false;
        self.patience = self.statement_timeout + GRACE;
    }

    /// From here on no answer may take longer than this.
    pub(super) fn expect_within(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Bounds that hold for everything said over this connection, and a search path on which no other role of a shared
    /// database can put an operator or a function of its own. Behind a pooler there is no such thing: there each transaction
    /// has its own.
    pub(super) async fn set_bounds(&mut self) -> Result<(), Fault> {
        match self.pooler {
            Pooler::None => self.run(&bounds("", self.statement_timeout)).await,
            Pooler::Transaction => Ok(()),
        }
    }

    /// A transaction that changes something.
    pub(super) async fn begin(&mut self) -> Result<(), Fault> {
        // Whatever the role's or the database's default is.
        self.begin_as("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// A transaction that sees one moment and changes nothing.
    pub(super) async fn begin_snapshot(&mut self) -> Result<(), Fault> {
        self.begin_as("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// The same, to find a few rows among very many. By their indexes: after an import the server knows too little of the
    /// tables for a while, and would read all of them.
    pub(super) async fn begin_search(&mut self) -> Result<(), Fault> {
        self.begin_as("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = off").await
    }

    async fn begin_as(&mut self, begin: &str) -> Result<(), Fault> {
        let begin = match self.pooler {
            Pooler::None => begin.to_owned(),
            Pooler::Transaction => format!("{begin}; {}", bounds("LOCAL", self.statement_timeout)),
        };
        self.state = State::InTransaction;
        self.run(&begin).await
    }

    /// Keeps what the transaction did.
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        match self.end().await {
            Ok(()) => Ok(()),
            Err(fault) if fault.leaves_commit_open() => {
                self.state = State::Broken;
                Err(Fault::Unknown)
            }
            Err(fault) => Err(fault),
        }
    }

    async fn end(&mut self) -> Result<(), Fault> {
        self.run("COMMIT").await?;
        self.state = State::Idle;
        Ok(())
    }

    /// Ends a transaction that changed nothing, or forgets what it did.
    pub(super) async fn roll_back(&mut self) -> Result<(), Fault> {
        self.run("ROLLBACK").await?;
        self.state = State::Idle;
        Ok(())
    }

    /// Ends a transaction that somebody left half-way; what it did is forgotten.
    pub(super) async fn leave_transaction(&mut self) {
        if self.state == State::InTransaction && self.roll_back().await.is_err() {
            self.state = State::Broken;
        }
    }

    /// Statements without parameters and without answers.
    pub(super) async fn run(&mut self, statements: &str) -> Result<(), Fault> {
        let answer = within(self.patience, self.client.batch_execute(statements)).await;
        self.note(answer)
    }

    /// The rows that a statement answers.
    pub(super) async fn rows(&mut self, sql: &Sql, values: Values<'_>) -> Result<Vec<Row>, Fault> {
        if !self.is_alone() {
            return self.rows_within(sql, values).await;
        }
        self.begin().await?;
        let rows = self.rows_within(sql, values).await;
        self.end_alone(rows).await
    }

    /// Whether what is said now has no bounds: behind a pooler, outside of a transaction.
    fn is_alone(&self) -> bool {
        self.pooler == Pooler::Transaction && self.state == State::Idle
    }

    /// Ends the transaction around a single statement. Where that is not answered, it is as for a statement alone.
    async fn end_alone<T>(&mut self, done: Result<T, Fault>) -> Result<T, Fault> {
        match done {
            Ok(done) => self.end().await.map(|()| done),
            Err(fault) => {
                self.leave_transaction().await;
                Err(fault)
            }
        }
    }

    async fn rows_within(&mut self, sql: &Sql, values: Values<'_>) -> Result<Vec<Row>, Fault> {
        let answer = match self.statement(sql).await? {
            Some(statement) => within(self.patience, self.client.query(&statement, values)).await,
            None => {
                let values: Vec<_> = values.iter().copied().zip(sql.types.iter().cloned()).collect();
                within(self.patience, self.client.query_typed(sql.text, &values)).await
            }
        };
        self.note(answer)
    }

    /// The first row of an answer.
    pub(super) async fn row(&mut self, sql: &Sql, values: Values<'_>) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// The only row of an answer that has one.
    pub(super) async fn only(&mut self, sql: &Sql, values: Values<'_>) -> Result<Row, Fault> {
        self.row(sql, values).await?.ok_or_else(|| Fault::Odd("a row that is always there is missing".to_owned()))
    }

    /// How many rows a statement changed.
    pub(super) async fn execute(&mut self, sql: &Sql, values: Values<'_>) -> Result<u64, Fault> {
        if !self.is_alone() {
            return self.execute_within(sql, values).await;
        }
        self.begin().await?;
        let changed = self.execute_within(sql, values).await;
        self.end_alone(changed).await
    }

    async fn execute_within(&mut self, sql: &Sql, values: Values<'_>) -> Result<u64, Fault> {
        let answer = match self.statement(sql).await? {
            Some(statement) => within(self.patience, self.client.execute(&statement, values)).await,
            None => {
                let values: Vec<_> = values.iter().copied().zip(sql.types.iter().cloned()).collect();
                within(self.patience, self.client.execute_typed(sql.text, &values)).await
            }
        };
        self.note(answer)
    }

    /// The rows of a statement that is said once, or whose answer changes its form.
    pub(super) async fn rows_once(&mut self, statement: &str) -> Result<Vec<Row>, Fault> {
        if !self.is_alone() {
            return self.rows_once_within(statement).await;
        }
        self.begin().await?;
        let rows = self.rows_once_within(statement).await;
        self.end_alone(rows).await
    }

    async fn rows_once_within(&mut self, statement: &str) -> Result<Vec<Row>, Fault> {
        let answer = within(self.patience, self.client.query_typed(statement, &[])).await;
        self.note(answer)
    }

    /// The prepared statement; none behind a pooler, where the next transaction may meet another server process.
    async fn statement(&mut self, sql: &Sql) -> Result<Option<Statement>, Fault> {
        match self.pooler {
            Pooler::Transaction => return Ok(None),
            Pooler::None => {}
        }
        if let Some(known) = self.prepared.get(sql.text) {
            return Ok(Some(known.clone()));
        }
        let answer = within(self.patience, self.client.prepare_typed(sql.text, sql.types)).await;
        let statement = self.note(answer)?;
        self.prepared.insert(sql.text, statement.clone());
        Ok(Some(statement))
    }

    fn note<T>(&mut self, answer: Result<T, Fault>) -> Result<T, Fault> {
        match &answer {
            Ok(_) => self.has_answered = true,
            Err(fault) if fault.ends_connection() => self.state = State::Broken,
            Err(_) => self.has_answered = true,
        }
        answer
    }
}

async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Fault::Silence(patience)),
    }
}

fn bounds(scope: &str, statement_timeout: Duration) -> String {
    let (statement, idle) = (statement_timeout.as_millis(), IDLE_IN_TRANSACTION.as_millis());
    format!(
        "SET {scope} search_path = pg_catalog; SET {scope} statement_timeout = {statement}; \
         SET {scope} lock_timeout = {statement}; SET {scope} idle_in_transaction_session_timeout = {idle}"
    )
}
