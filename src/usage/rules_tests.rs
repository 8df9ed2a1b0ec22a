//! Names of rules stay what they are.

use std::path::Path;

use super::*;
use crate::route::RouteIx;

fn rules(routes: &str) -> Rules {
    let text = format!(
        "version: 1\nlisteners: [{{ bind: \"127.0.0.1:0\" }}]\n\
         upstreams: {{ shop: {{ targets: [{{ url: \"http://127.0.0.1:9\" }}] }} }}\nroutes:\n{routes}"
    );
    let settings = crate::config::load_text(Path::new("test.yaml"), &text, &|_| None).settings.unwrap();
    Rules::compile(settings.gate, &["shop"]).unwrap()
}

#[test]
fn a_rule_keeps_its_number_wherever_a_reload_puts_it() {
    let names = RuleNames::default();
    let orders = "  - { path: /orders/**, upstream: shop, auth: any_key, methods: { GET: {}, POST: {} } }\n";
    let hosts = "  - { path: /a, hosts: [b.test, \"*.a.test\"], group: g, upstream: shop, auth: any_key }\n";
    let before = names.number(&rules(orders));
    let after = names.number(&rules(&format!("{hosts}{orders}")));
    let rule = |route, method| RuleRef { route: RouteIx(route), method };
    let get = before.of(rule(0, 0));
    assert_eq!((&*names.text(get), get), ("GET /orders/**", after.of(rule(1, 0))));
    assert_eq!(&*names.text(after.of(rule(1, 1))), "POST /orders/**");
    assert_eq!(&*names.text(after.of(rule(0, 0))), "* b.test,*.a.test/a");
    assert_eq!(before.of(rule(7, 0)), RuleName::OTHER);
}
