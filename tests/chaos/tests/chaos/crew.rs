//! Does many runs, some at a time, and says how far it is. A run that fails or hangs stops no other.

use std::{
    collections::BTreeMap,
    fmt::Display,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::effort::say;

/// Runs at a time. Most of a fault's time is waiting, for an answer that is late or before the next try: with so many, both cores
/// have always something to do, and no run waits so long for a core that its calls to Stripe give up on their own.
const PARALLEL: usize = 32;
/// A run that takes longer hangs: the longest takes half a minute, most of it waiting.
const RUN_MAX: Duration = Duration::from_secs(300);
/// How often it is said how far the runs are.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// Does all of them; what failed, in the order of the jobs, with what was wrong.
pub(crate) async fn all<T, F>(what: &str, jobs: Vec<T>, work: impl Fn(T) -> F) -> Vec<(T, Vec<String>)>
where
    T: Copy + Display + Send + 'static,
    F: Future<Output = Vec<String>> + Send + 'static,
{
    let (begin, count) = (Instant::now(), jobs.len());
    let mut waiting = jobs.into_iter().enumerate();
    let (mut running, mut at_work) = (JoinSet::new(), BTreeMap::new());
    let (mut done, mut failed) = (0, BTreeMap::new());
    let mut progress = tokio::time::interval(PROGRESS_EVERY);
    progress.tick().await; // the first is at once
    loop {
        while at_work.len() < PARALLEL
            && let Some((i, job)) = waiting.next()
        {
            let run = tokio::time::timeout(RUN_MAX, work(job));
            at_work.insert(running.spawn(run).id(), (i, job));
        }
        let ended = tokio::select! {
            ended = running.join_next_with_id() => ended,
            _ = progress.tick() => {
                say(&format!(
                    "{what}: {done} of {count} runs done, {} failed, {:.0} s",
                    failed.len(),
                    begin.elapsed().as_secs_f64()
                ));
                continue;
            }
        };
        let (id, problems) = match ended {
            None => break,
            Some(Ok((id, Ok(problems)))) => (id, problems),
            Some(Ok((id, Err(_)))) => (id, vec![format!("it does not end within {} s", RUN_MAX.as_secs())]),
            Some(Err(panic)) => (panic.id(), vec![panic.to_string()]),
        };
        done += 1;
        if let Some((i, job)) = at_work.remove(&id)
            && !problems.is_empty()
        {
            say(&format!("{job}: {problems:#?}"));
            failed.insert(i, (job, problems));
        }
    }
    failed.into_values().collect()
}
