//! `routes test`: does the route map decide what its authors expect?

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::expectations::{self, Expectation, Expected, ExpectedCaller};
use crate::cache::Profile;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs};
use crate::cli::site::Site;
use crate::domain::{KeyKind, Timestamp, time};
use crate::explain::TypedRequest;
use crate::gate::{self, Answer, Rules, SupposedCaller, SupposedKey};
use crate::manage::Vocabulary;
use crate::reply::Refusal;

/// `routes test`.
#[derive(Args, Debug)]
pub(in crate::cli) struct TestArgs {
    /// A YAML list of { method, url, scopes: [...], expect: allow, a status or a code }
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// An expectation that was not met.
struct Miss<'e> {
    expectation: &'e Expectation,
    found: String,
    rule: Option<String>,
}

/// Asks every question of the file.
///
/// # Errors
/// [`Failure::Runtime`] when an expectation is not met; [`Failure::Usage`] when the file makes no sense.
pub(super) fn run(site: &Site, args: TestArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let name = args.file.display();
    let text =
        std::fs::read_to_string(&args.file).map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    let expectations = expectations::parse(&text).map_err(|problem| Failure::usage(format!("{name}:{problem}")))?;
    if expectations.is_empty() {
        return Err(Failure::usage(format!("{name} expects nothing: it is an empty list")));
    }
    let rules = site.rules()?;
    let vocabulary = Vocabulary::of(&site.settings.gate);
    let now = time::now();
    let mut misses = Vec::new();
    for expectation in &expectations {
        let question = Question::read(expectation, &vocabulary)
            .map_err(|problem| Failure::usage(format!("{name}:{}: {problem}", expectation.line)))?;
        misses.extend(question.ask(expectation, &rules, now));
    }
    let (all, missed) = (expectations.len(), misses.len());
    match args.output.output {
        Output::Json => output::json(console, &Value::Array(misses.iter().map(Miss::json).collect()))?,
        Output::Text => {
            for miss in &misses {
                writeln!(console.out, "{name}:{}", miss.text())?;
            }
            writeln!(console.out, "{} of {all} expectations hold", all - missed)?;
        }
    }
    match missed {
        0 => Ok(()),
        1 => Err(Failure::runtime(format!("1 expectation of {name} does not hold"))),
        _ => Err(Failure::runtime(format!("{missed} expectations of {name} do not hold"))),
    }
}

struct Question {
    request: TypedRequest,
    caller: SupposedCaller,
}

impl Question {
    fn read(expectation: &Expectation, vocabulary: &Vocabulary<'_>) -> Result<Self, String> {
        let request = TypedRequest::parse(&expectation.method, &expectation.url)?;
        let caller = match &expectation.caller {
            ExpectedCaller::Nobody => SupposedCaller::Nobody,
            ExpectedCaller::Key { scopes, roles, environment, kind } => {
                let kind = KeyKind::from_name(kind)
                    .ok_or_else(|| format!("there is no kind {kind:?}: a key is secret, publishable or management"))?;
                vocabulary.environment_word(environment)?;
                SupposedCaller::Key(SupposedKey {
                    kind,
                    environment: environment.as_str().into(),
                    profile: Profile {
                        scopes: vocabulary.scopes(scopes, kind)?,
                        roles: vocabulary.roles(roles)?,
                        ..Profile::default()
                    },
                    rejection: None,
                })
            }
        };
        Ok(Self { request, caller })
    }

    /// What was found instead of what is expected.
    fn ask<'e>(&self, expectation: &'e Expectation, rules: &Rules, now: Timestamp) -> Option<Miss<'e>> {
        let head = self.request.head(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let explanation = gate::explain(&head, rules, &self.caller, now);
        let (is_met, found) = compare(&explanation.answer, expectation);
        let rule = explanation.rule.map(|rule| {
            let source = &rules.route(rule.route).settings.methods[usize::from(rule.method)].source;
            source.to_string()
        });
        (!is_met).then_some(Miss { expectation, found, rule })
    }
}

fn compare(answer: &Answer, expectation: &Expectation) -> (bool, String) {
    let code_fits = |code: &str| expectation.code.as_deref().is_none_or(|expected| expected == code);
    match answer {
        Answer::Forward => (expectation.expect == Expected::Allow, "allow".to_owned()),
        Answer::Preflight => (false, "a preflight, answered by the gateway".to_owned()),
        Answer::Refuse(denial) => {
            let facts = Refusal::Denied(denial).facts();
            let status = facts.status.as_u16();
            let is_met = match expectation.expect {
                Expected::Status(expected) => expected == status && code_fits(facts.code),
                Expected::Code(expected) => expected == facts.code,
                Expected::Allow | Expected::Report => false,
            };
            (is_met, format!("{status} {}", facts.code))
        }
        Answer::Report(denial) => {
            let facts = Refusal::Denied(denial).facts();
            let is_met = expectation.expect == Expected::Report && code_fits(facts.code);
            (is_met, format!("report: forwarded, would be {} {}", facts.status.as_u16(), facts.code))
        }
    }
}

impl Miss<'_> {
    fn expected(&self) -> String {
        let code = self.expectation.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
        match self.expectation.expect {
            Expected::Allow => "allow".to_owned(),
            Expected::Report => format!("report{code}"),
            Expected::Status(status) => format!("{status}{code}"),
            Expected::Code(code) => code.to_owned(),
        }
    }

    fn text(&self) -> String {
        let Expectation { line, method, url, .. } = self.expectation;
        let rule = self.rule.as_ref().map(|rule| format!(", by the rule at {rule}")).unwrap_or_default();
        format!("{line}: {method} {url}: expected {}, found {}{rule}", self.expected(), self.found)
    }

    fn json(&self) -> Value {
        json!({
            "line": self.expectation.line,
            "method": self.expectation.method,
            "url": self.expectation.url,
            "expected": self.expected(),
            "found": self.found,
            "rule": self.rule,
        })
    }
}
