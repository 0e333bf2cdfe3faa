//! The demo, as `farebox demo --json` reports it.

use farebox_local::replay;

#[tokio::test(flavor = "multi_thread")]
async fn every_count_agrees_and_every_alert_is_sent_once() {
    let report = replay(|_| {}).await.expect("the demo runs");
    for customer in &report.customers {
        assert_eq!(customer.difference, 0, "{customer:?}");
    }
    assert_eq!(report.customers.len(), 60);
    assert_eq!(report.stories.len(), 3, "{:?}", report.stories);

    // Nobody is told the same twice. Who upgraded has included units of two plans to be told of.
    let upgraded = |to: &str| {
        report
            .stories
            .iter()
            .any(|story| story.contains("upgraded") && to.contains(word(story)))
    };
    let told = report.alerts.iter().filter(|alert| !upgraded(&alert.to));
    let mut sent: Vec<(&str, &str)> = told.map(|alert| (alert.to.as_str(), alert.subject.as_str())).collect();
    let before = sent.len();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), before, "an alert was sent twice: {:#?}", report.alerts);
    for percent in ["80%", "100%", "120%"] {
        assert!(
            sent.iter().any(|(_, subject)| subject.contains(percent)),
            "{percent}: {sent:#?}"
        );
    }
}

/// The customer in `2015-05-18 12:34 <customer> upgraded from …`.
fn word(story: &str) -> &str {
    story.split(' ').nth(2).expect("a story has a time and a customer")
}
