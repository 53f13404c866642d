//! Deadlines of a connection that cost next to nothing while they hold: one timer a connection, set again only when it
//! goes off too early or would go off too late.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};

/// A timer that outlives the waits it is used for.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether `due` has passed; else the task is woken when it has.
    pub(crate) fn poll_past(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        // An earlier wait's deadline, when it is before this one's, is as good: it is moved once it is reached.
        if sleep.deadline() > due.into() {
            sleep.as_mut().reset(due.into());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_goes_off_when_it_is_due_whatever_it_was_set_to_before() {
        let mut alarm = Alarm::default();
        let began = Instant::now();
        for (wait, wanted) in [(3_600_000, false), (30, true), (5, true), (60, true)] {
            let due = Instant::now() + Duration::from_millis(wait);
            let past = std::future::poll_fn(|cx| alarm.poll_past(due, cx));
            let past = tokio::time::timeout(Duration::from_millis(if wanted { 5_000 } else { 10 }), past).await;
            assert_eq!(past.is_ok(), wanted, "{wait}");
            assert_eq!(Instant::now() >= due, wanted, "{wait}");
        }
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
