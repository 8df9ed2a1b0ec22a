//! Which methods a rule is for, and which rule of one path a method finds.
//!
//! Owns *named before `*`*, *HEAD follows GET* and the `Allow` list. Must not know paths or hosts.

use http::{HeaderValue, Method};

/// What `"*"` means: these seven. Every other method must be named.
pub const ALL_METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

const GET: usize = 0;
const HEAD: usize = 1;

fn known_index(method: &Method) -> Option<usize> {
    match *method {
        Method::GET => Some(GET),
        Method::HEAD => Some(HEAD),
        Method::POST => Some(2),
        Method::PUT => Some(3),
        Method::PATCH => Some(4),
        Method::DELETE => Some(5),
        Method::OPTIONS => Some(6),
        _ => None,
    }
}

/// Which methods a demand is for.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum MethodSelector {
    /// One method by name. GET covers HEAD unless HEAD is named.
    Named(Method),
    /// `"*"` or `ALL`: the [`ALL_METHODS`].
    All,
}

/// Why a text selects no method.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodError {
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub fix: String,
}

impl MethodSelector {
    /// Reads a method's name as a configuration has it.
    ///
    /// # Errors
    /// No token of RFC 9110 §5.6.2; a standard method in another case (methods are case-sensitive, RFC 9110 §9.1);
    /// TRACE and CONNECT, which are always refused.
    pub fn parse(text: &str) -> Result<Self, MethodError> {
        let error = |problem: String, fix: &str| Err(MethodError { problem, fix: fix.to_owned() });
        if text == "*" || text == "ALL" {
            return Ok(Self::All);
        }
        let upper = text.to_ascii_uppercase();
        if upper == "TRACE" || upper == "CONNECT" {
            return error(format!("{upper} is always answered with 405"), "remove the entry");
        }
        let Ok(method) = Method::from_bytes(text.as_bytes()) else {
            let fix = "write a name such as GET, or \"*\" for GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS";
            return error(format!("`{text}` is not a method name (RFC 9110 §9.1)"), fix);
        };
        let meant = Method::from_bytes(upper.as_bytes()).ok().filter(|meant| known_index(meant).is_some());
        if upper == "ALL" || meant.is_some_and(|meant| meant != method) {
            return error(format!("`{text}` is not `{upper}`: methods are case-sensitive"), &format!("write {upper}"));
        }
        Ok(Self::Named(method))
    }

    /// Whether a request with `method` may meet this entry, HEAD by way of GET included.
    pub(super) fn covers(&self, method: &Method) -> bool {
        match self {
            Self::Named(named) => named == method || (*named == Method::GET && *method == Method::HEAD),
            Self::All => known_index(method).is_some(),
        }
    }

    /// How well the entry fits `method`, better is more; only where it covers it.
    pub(super) fn closeness(&self, method: &Method) -> u8 {
        match self {
            Self::Named(named) if named == method => 2,
            Self::Named(_) => 1,
            Self::All => 0,
        }
    }
}

/// The methods one path answers, as 405 names them (RFC 9110 §10.2.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allow {
    methods: Vec<Method>,
    header: HeaderValue,
}

impl Allow {
    fn new(methods: Vec<Method>) -> Self {
        let text = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        #[expect(clippy::expect_used, reason = "method names are tokens, which are visible ASCII")]
        let header = HeaderValue::try_from(text).expect("tokens, commas and spaces make a field value");
        Self { methods, header }
    }

    /// The methods, each once.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The value of `Allow`. Cheap to clone.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

/// The rules of one path, by method. `R` names a rule.
#[derive(Clone, Debug)]
pub(super) struct MethodRules<R> {
    known: [Option<R>; ALL_METHODS.len()],
    named: Vec<(Method, R)>,
    allow: Allow,
}

impl<R: Copy> MethodRules<R> {
    /// Of entries with the same selector the first counts; telling them apart is the caller's.
    pub(super) fn new<'a>(entries: impl Iterator<Item = (&'a MethodSelector, R)> + Clone) -> Self {
        let first = |wanted: &dyn Fn(&MethodSelector) -> bool| {
            entries.clone().find(|(selector, _)| wanted(selector)).map(|(_, rule)| rule)
        };
        let all = first(&|selector| *selector == MethodSelector::All);
        let named = |method: &Method| first(&|selector| *selector == MethodSelector::Named(method.clone()));
        let mut known = ALL_METHODS.each_ref().map(|method| named(method).or(all));
        // HEAD follows GET, and GET's own entry comes before what `"*"` says about HEAD.
        known[HEAD] = named(&Method::HEAD).or(known[GET]);

        let mut others = Vec::new();
        for (selector, rule) in entries.clone() {
            if let MethodSelector::Named(method) = selector
                && known_index(method).is_none()
                && others.iter().all(|(other, _)| other != method)
            {
                others.push((method.clone(), rule));
            }
        }
        let answered = ALL_METHODS.into_iter().zip(&known).filter(|(_, rule)| rule.is_some()).map(|(method, _)| method);
        let allow = Allow::new(answered.chain(others.iter().map(|(method, _)| method.clone())).collect());
        Self { known, named: others, allow }
    }

    /// The rule for `method`; `None` is a 405.
    pub(super) fn find(&self, method: &Method) -> Option<R> {
        match known_index(method) {
            Some(index) => self.known[index],
            None => self.named.iter().find(|(named, _)| named == method).map(|(_, rule)| *rule),
        }
    }

    pub(super) fn allow(&self) -> &Allow {
        &self.allow
    }
}

#[cfg(test)]
#[path = "method_tests.rs"]
mod tests;
