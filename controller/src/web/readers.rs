//! Readers of the register for whoever asks over HTTP: a few, each on a thread that may wait for
//! the disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    hub::ask::Refused,
    store::{Reader, StoreError},
};

/// How many readers of the register are open at a time: reading is quick, and a Pi has few cores.
const READERS: usize = 4;

/// Readers of the register that nobody uses now.
pub(crate) struct Readers {
    idle: Mutex<Vec<Reader>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// As many readers as may read at a time.
    pub(crate) fn open(open: impl Fn() -> Result<Reader, StoreError>) -> Result<Self, StoreError> {
        let idle = (0..READERS).map(|_| open()).collect::<Result<_, _>>()?;
        Ok(Self { idle: Mutex::new(idle), permits: Arc::new(Semaphore::new(READERS)) })
    }

    /// Reads from the register.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Refused> {
        let failed =
            |error: &dyn std::fmt::Display| Refused::unavailable(format!("the register cannot be read: {error}"));
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|error| failed(&error))?;
        let readers = Arc::clone(self);
        let result = tokio::task::spawn_blocking(move || readers.with(permit, read)).await;
        result.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    /// The permit is given back when the reader is, not when whoever asked has gone away.
    fn with<T>(
        &self,
        permit: OwnedSemaphorePermit,
        read: impl FnOnce(&Reader) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let reader = self.idle().pop().expect("there are as many readers as permits");
        let at_work = AtWork { readers: self, reader: Some(reader), _permit: permit };
        read(at_work.reader.as_ref().expect("it is taken at the end"))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader at work. It is idle again when this ends, also where reading has failed badly; its
/// permit follows it.
struct AtWork<'a> {
    readers: &'a Readers,
    reader: Option<Reader>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.readers.idle().extend(self.reader.take());
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;
    use crate::store::{Retention, Store};

    #[tokio::test]
    async fn readers_that_are_at_work_for_nobody_any_more_keep_the_next_waiting_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _, _) =
            Store::open(folder.path(), Retention { days: 30, runs: 10, events: 10, audit: 10 }).unwrap();
        let readers = Arc::new(Readers::open(|| store.reader()).unwrap());
        let mut busy = Vec::new();
        for _ in 0..READERS {
            let (readers, (release, released), (at_work, is_at_work)) =
                (Arc::clone(&readers), mpsc::channel::<()>(), mpsc::channel());
            let asked = tokio::spawn(async move {
                readers
                    .read(move |_| {
                        let _ = at_work.send(());
                        let _ = released.recv();
                        Ok(())
                    })
                    .await
            });
            tokio::task::spawn_blocking(move || is_at_work.recv().unwrap()).await.unwrap();
            asked.abort();
            assert!(asked.await.unwrap_err().is_cancelled());
            busy.push(release);
        }
        let next = readers.read(|_| Ok("read"));
        tokio::pin!(next);
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut next).await.is_err(), "every reader is at work");
        drop(busy);
        assert_eq!(next.await, Ok("read"));
    }

    #[tokio::test]
    async fn a_reader_outlives_a_read_that_fails_badly() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _, _) =
            Store::open(folder.path(), Retention { days: 30, runs: 10, events: 10, audit: 10 }).unwrap();
        let readers = Arc::new(Readers::open(|| store.reader()).unwrap());
        for _ in 0..=READERS {
            assert!(readers.read(|_| -> rusqlite::Result<()> { panic!("as a fault of ours would") }).await.is_err());
        }
        assert_eq!(readers.read(|_| Ok("read")).await, Ok("read"));
    }
}
