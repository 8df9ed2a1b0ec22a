//! One configuration, made ready to be swapped in: rules, upstreams and certificates, or the reason why not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::RunError;
use crate::config::Settings;
use crate::domain::time;
use crate::gate::{Mode, Route, Rules};
use crate::proxy::{BodyPatience, HeaderRules, LiveTarget as Target, Plan, Upstream};
use crate::server::EdgeTls;
use crate::telemetry::Metrics;
use crate::usage::RuleNames;

/// What a configuration compiles to.
pub(super) struct Generation {
    pub(crate) rules: Arc<Rules>,
    /// By the numbers that the rules have of them.
    upstreams: Vec<Arc<Upstream>>,
    /// Certificates by the name of their `tls` entry.
    pub(crate) tls: BTreeMap<String, Arc<EdgeTls>>,
}

/// What runs already: its upstreams' connections and its TLS sessions go on where the new configuration has them too.
#[derive(Clone, Copy)]
pub(super) struct Previous<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) tls: &'a BTreeMap<String, Arc<EdgeTls>>,
}

/// What the `type` of a problem begins with; the code follows. A name, not an address (RFC 9457 §3.1.1 allows any
/// URI): where the pages of `docs/errors.md` are published is the operator's choice.
const ERROR_TYPE_BASE: &str = "urn:portcullis:error:";

impl Generation {
    /// Compiles `settings`. Reads certificate files; opens no socket and changes nothing that runs.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub(super) fn compile(settings: &Settings, previous: Option<Previous<'_>>) -> Result<Self, RunError> {
        let names: Vec<&str> = settings.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        let rules = Rules::compile(settings.gate.clone(), &names).map_err(RunError::Rules)?;
        let upstreams = settings
            .upstreams
            .iter()
            .map(|upstream| {
                let before = previous.and_then(|previous| {
                    previous.plan.upstreams.iter().find(|known| known.settings.name == upstream.name).map(AsRef::as_ref)
                });
                Upstream::open(upstream.clone(), before)
                    .map(Arc::new)
                    .map_err(|source| RunError::Upstream { name: upstream.name.clone(), source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let tls = settings
            .tls
            .iter()
            .map(|entry| {
                let opened = match previous.and_then(|previous| previous.tls.get(&entry.name)) {
                    Some(before) => EdgeTls::load_in_place_of(before, entry.clone()),
                    None => EdgeTls::load(entry.clone()),
                };
                let opened = opened.map_err(|problems| RunError::Tls { name: entry.name.clone(), problems })?;
                for warning in opened.warnings(time::now()) {
                    tracing::warn!(tls = %entry.name, %warning, "a certificate needs attention");
                }
                Ok((entry.name.clone(), Arc::new(opened)))
            })
            .collect::<Result<_, RunError>>()?;
        Ok(Self { rules: Arc::new(rules), upstreams, tls })
    }

    /// What workers forward by. It names routes and rules where requests are counted, which nothing takes back: for what is
    /// about to be in force, and not for what is only tried.
    pub(super) fn plan(&self, settings: &Settings, metrics: &Metrics, rule_names: &RuleNames) -> Arc<Plan> {
        metrics.set_max_routes(settings.metrics.max_routes);
        let labels = self.rules.routes.iter().map(|route| metrics.route(&route.settings.label)).collect();
        Arc::new(Plan {
            upstreams: self.upstreams.clone(),
            headers: Arc::new(HeaderRules::new(&settings.headers)),
            labels,
            rule_numbers: rule_names.number(&self.rules),
            errors: settings.errors,
            error_type_base: ERROR_TYPE_BASE.to_owned(),
            limit_fields: settings.rate_limits.fields,
            patience: BodyPatience::new(settings.limits.stall_timeout, settings.limits.min_body_rate),
        })
    }

    /// Tells scrapers what is in force from now on: targets, certificates, and routes that report instead of enforcing.
    /// What happens to a target that is not listed is not counted.
    pub(super) fn export(&self, metrics: &Metrics) {
        metrics.set_upstream_targets(self.upstreams.iter().flat_map(|upstream| {
            let label = metrics.upstream(&upstream.settings.name);
            let is_healthy = |target: &Target| target.standing.is_healthy(&upstream.settings.ejection);
            upstream.targets.iter().map(move |target| (label, target.label.clone(), is_healthy(target)))
        }));
        let reports = |route: &&Route| route.settings.mode == Mode::Report;
        metrics.set_report_mode_routes(self.rules.routes.iter().filter(reports).count());
        export_certificates(metrics, &self.tls);
    }
}

/// Tells scrapers when certificates end.
pub(super) fn export_certificates(metrics: &Metrics, tls: &BTreeMap<String, Arc<EdgeTls>>) {
    let ends = tls.iter().flat_map(|(name, tls)| {
        let certificates = tls.certificates().into_iter();
        certificates.map(move |certificate| (format!("{name}/{}", certificate.label()), certificate.not_after))
    });
    metrics.set_certificates(ends.collect::<Vec<_>>());
}
