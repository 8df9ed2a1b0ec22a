//! Sends `GET` requests over HTTP/1.1 to 127.0.0.1, each with a key picked at random, and prints one line of JSON.
//!
//! Without `--rate` every connection has one request under way at all times. With it, request `i` is due at `i / rate`
//! seconds, and its latency counts from that moment: a server that stalls is charged for every request it made wait.
//! One thread and one `epoll`; how many requests it can make is its own share of a processor, so pin it to another one
//! than what is measured.

mod answer;
mod arguments;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::answer::AnswerReader;
use crate::arguments::Arguments;

/// How long requests under way at the end are waited for.
const GRACE: Duration = Duration::from_secs(5);
/// Failed exchanges after which there is no point in going on.
const MAX_ERRORS: u64 = 100;
/// The event that no connection has.
const TIMER: u64 = u64::MAX;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("portcullis-load: {message}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match Load::open(&arguments).and_then(|load| load.run(arguments.duration)) {
        Ok(report) => {
            println!("{}", report.json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("portcullis-load: port {}: {error}", arguments.port);
            ExitCode::FAILURE
        }
    }
}

/// All connections, and what is sent over them.
struct Load {
    port: u16,
    requests: Requests,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a request under way.
    free: Vec<usize>,
    pace: Option<Pace>,
    report: Report,
}

struct Connection {
    stream: TcpStream,
    answer: AnswerReader,
    /// Since when its request counts; none while there is none.
    due: Option<Instant>,
}

/// When requests are due.
struct Pace {
    interval: Duration,
    sent: u32,
    /// Wakes us at every interval, once it was read since the last time.
    timer: OwnedFd,
}

impl Load {
    fn open(arguments: &Arguments) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let pace = arguments.rate.map(|rate| pace(&epoll, rate)).transpose()?;
        let mut load = Self {
            port: arguments.port,
            requests: Requests::new(&arguments.path, &arguments.keys),
            epoll,
            connections: Vec::new(),
            free: (0..arguments.connections).collect(),
            pace,
            report: Report::default(),
        };
        for number in 0..arguments.connections {
            let connection = load.connect(number)?;
            load.connections.push(connection);
        }
        Ok(load)
    }

    fn run(mut self, duration: Duration) -> io::Result<Report> {
        let begun = now();
        let end = begun + duration;
        if let Some(pace) = &self.pace {
            let every = timespec(pace.interval);
            let timer = Itimerspec { it_interval: every, it_value: every };
            timerfd_settime(&pace.timer, TimerfdTimerFlags::empty(), &timer)?;
        }
        let mut events = Vec::with_capacity(256);
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let at = now();
            self.send_what_is_due(begun, at, end)?;
            let is_over = at >= end && self.free.len() == self.connections.len();
            if is_over || at >= end + GRACE {
                break;
            }
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timespec(GRACE / 50))) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match (event.data.u64(), &self.pace) {
                    (TIMER, Some(pace)) => drop(rustix::io::read(&pace.timer, &mut [0; 8])?),
                    (number, _) => self.receive(number as usize, &mut bytes)?,
                }
            }
        }
        self.report.unanswered = (self.connections.len() - self.free.len()) as u64;
        self.report.took = begun.elapsed();
        Ok(self.report)
    }

    /// Sends on every free connection, at a pace only what is due by now.
    fn send_what_is_due(&mut self, begun: Instant, at: Instant, end: Instant) -> io::Result<()> {
        while let Some(number) = self.free.pop() {
            let due = match &mut self.pace {
                None => at,
                Some(pace) => {
                    let due = begun + pace.interval * pace.sent;
                    pace.sent += u32::from(due <= at && due < end);
                    due
                }
            };
            if due > at || due >= end {
                self.free.push(number);
                break;
            }
            self.send(number, due)?;
        }
        Ok(())
    }

    fn send(&mut self, number: usize, due: Instant) -> io::Result<()> {
        let request = self.requests.next();
        let connection = &mut self.connections[number];
        connection.due = Some(due);
        // One small request into an empty buffer: it goes whole, or something is wrong.
        match connection.stream.write(request) {
            Ok(len) if len == request.len() => Ok(()),
            Ok(_) => self.give_up(number, "the request was not taken whole"),
            Err(error) => self.give_up(number, &error.to_string()),
        }
    }

    fn receive(&mut self, number: usize, bytes: &mut [u8]) -> io::Result<()> {
        let connection = &mut self.connections[number];
        let len = match connection.stream.read(bytes) {
            Ok(0) if connection.due.is_none() => return self.replace(number),
            Ok(0) => return self.give_up(number, "the connection was closed before the answer"),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return self.give_up(number, &error.to_string()),
        };
        match connection.answer.take(&bytes[..len]) {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => {
                let Some(due) = connection.due.take() else {
                    return self.give_up(number, "an answer that nobody asked for");
                };
                self.report.note(answer.status, now() - due);
                self.free.push(number);
                if answer.closes { self.replace(number) } else { Ok(()) }
            }
            Err(why) => self.give_up(number, &format!("not an answer: {why}")),
        }
    }

    /// Counts a failure and goes on with a new connection.
    fn give_up(&mut self, number: usize, why: &str) -> io::Result<()> {
        self.report.errors += 1;
        if self.report.errors == 1 {
            eprintln!("portcullis-load: port {}: {why}", self.port);
        }
        if self.report.errors > MAX_ERRORS {
            return Err(io::Error::other("too many errors"));
        }
        if self.connections[number].due.is_some() {
            self.free.push(number);
        }
        self.replace(number)
    }

    fn replace(&mut self, number: usize) -> io::Result<()> {
        self.connections[number] = self.connect(number)?;
        self.report.reconnects += 1;
        Ok(())
    }

    fn connect(&self, number: usize) -> io::Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(number as u64), EventFlags::IN)?;
        Ok(Connection { stream, answer: AnswerReader::default(), due: None })
    }
}

fn pace(epoll: &OwnedFd, rate: u32) -> io::Result<Pace> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    epoll::add(epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
    Ok(Pace { interval: Duration::from_secs(1) / rate, sent: 0, timer })
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}

/// The text of requests.
struct Requests {
    begin: Vec<u8>,
    keys: Vec<String>,
    request: Vec<u8>,
    random: u64,
}

impl Requests {
    fn new(path: &str, keys: &[String]) -> Self {
        let begin = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: portcullis-load\r\nAccept: */*\r\n\
             Authorization: Bearer "
        );
        Self { begin: begin.into_bytes(), keys: keys.to_vec(), request: Vec::new(), random: 0x9E37_79B9_7F4A_7C15 }
    }

    /// A request with any of the keys (xorshift64).
    fn next(&mut self) -> &[u8] {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let key = &self.keys[(self.random % self.keys.len() as u64) as usize];
        self.request.clear();
        self.request.extend_from_slice(&self.begin);
        self.request.extend_from_slice(key.as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
        &self.request
    }
}

/// What came of it.
#[derive(Default)]
struct Report {
    statuses: BTreeMap<u16, u64>,
    latencies: Vec<Duration>,
    errors: u64,
    reconnects: u64,
    unanswered: u64,
    took: Duration,
}

impl Report {
    fn note(&mut self, status: u16, latency: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        self.latencies.push(latency);
    }

    fn json(mut self) -> String {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        let percentile = |share: f64| {
            let latency = self.latencies.get((share * last as f64).round() as usize);
            latency.map_or(0.0, |latency| latency.as_nanos() as f64 / 1_000.0)
        };
        let statuses: Vec<String> =
            self.statuses.iter().map(|(status, count)| format!("\"{status}\": {count}")).collect();
        format!(
            "{{\"requests\": {}, \"seconds\": {:.4}, \"statuses\": {{{}}}, \"errors\": {}, \"reconnects\": {}, \
             \"unanswered\": {}, \"p50_us\": {:.1}, \"p99_us\": {:.1}}}",
            self.latencies.len(),
            self.took.as_secs_f64(),
            statuses.join(", "),
            self.errors,
            self.reconnects,
            self.unanswered,
            percentile(0.5),
            percentile(0.99),
        )
    }
}
