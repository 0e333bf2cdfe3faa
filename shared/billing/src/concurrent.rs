//! Several things at a time, but not all of them.

use tokio::task::JoinSet;

/// Does `work` for every job, at most `most` at a time, and returns the results in the order in which they came.
pub async fn each<J, R, F>(jobs: impl IntoIterator<Item = J>, most: usize, work: impl Fn(J) -> F) -> Vec<R>
where
    R: Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let mut results = Vec::new();
    let mut running = JoinSet::new();
    for job in jobs {
        if running.len() >= most {
            results.extend(running.join_next().await.map(unwrap));
        }
        running.spawn(work(job));
    }
    while let Some(result) = running.join_next().await {
        results.push(unwrap(result));
    }
    results
}

/// A panic must fail the invocation: passed over, a message would be acknowledged that nobody stored.
fn unwrap<R>(result: Result<R, tokio::task::JoinError>) -> R {
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("nobody aborts these tasks: {error}"),
        },
    }
}
