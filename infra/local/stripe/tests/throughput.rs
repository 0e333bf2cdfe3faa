//! temp
use std::{sync::Arc, time::Instant};
use bytes::Bytes;
use farebox_stripe_standin::{Options, StandIn};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
#[tokio::test]
async fn t() {
    for journal in [None, Some(std::path::PathBuf::from("/tmp/standin-bench.jsonl"))] {
        let _ = std::fs::remove_file("/tmp/standin-bench.jsonl");
        let standin = StandIn::open(Options { journal: journal.clone(), ..Options::new(Arc::new(|| 1_801_390_643)) }).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(standin.clone().serve(listener, std::future::pending::<()>()));
        let mut tasks = Vec::new();
        let started = Instant::now();
        for task in 0..16 {
            tasks.push(tokio::spawn(async move {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                let mut call = async |path: &str, body: String, key: String| {
                    let request = Request::builder().method("POST").uri(path).header("authorization", "Bearer sk").header("idempotency-key", key)
                        .body(Full::new(Bytes::from(body))).unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    let status = response.status();
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(status, 200, "{body:?}");
                    serde_json::from_slice::<serde_json::Value>(&body).unwrap()
                };
                if task == 0 {
                    call("/v1/billing/meters", "display_name=Calls&event_name=api_calls&default_aggregation[formula]=sum".into(), "m".into()).await;
                } else { tokio::time::sleep(std::time::Duration::from_millis(100)).await; }
                let customer = call("/v1/customers", "name=A".into(), format!("c{task}")).await["id"].as_str().unwrap().to_owned();
                for i in 0..1000 {
                    call("/v1/billing/meter_events", format!("event_name=api_calls&payload[stripe_customer_id]={customer}&payload[value]=1&identifier={customer}-{i}"), format!("k{task}-{i}")).await;
                }
            }));
        }
        for task in tasks { task.await.unwrap(); }
        let took = started.elapsed();
        println!("journal {} : {:.0}/s", journal.is_some(), 16000.0 / took.as_secs_f64());
        let t = Instant::now();
        if let Some(j) = journal { drop(standin); let s = StandIn::open(Options { journal: Some(j), ..Options::new(Arc::new(|| 1_801_390_643)) }).unwrap(); println!("replay {:?} {}", t.elapsed(), s.snapshot()["meter_events"]); }
    }
}
