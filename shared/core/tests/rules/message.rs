//! Messages that are refused.

use farebox_core::message::{BadMessage, UsageMessage};

#[test]
fn a_bucket_at_the_end_of_all_numbers_is_refused() {
    for bucket in [u64::MAX, u64::MAX - 1, u64::MAX - 7_200, 253_402_300_800] {
        let body = format!(
            r#"{{"v":1,"customer":"acme","shard":0,"generation":"0123456789abcdef-0","meter":"api_calls","bucket":{bucket},
            "bucket_end":{},"units":5,"period":0,"plan":"pro-00000000","period_units":5,"alert_percents":[80],"at":0}}"#,
            u64::MAX
        );
        assert_eq!(UsageMessage::parse(&body), Err(BadMessage::Range("bucket")), "{bucket}");
    }
}
