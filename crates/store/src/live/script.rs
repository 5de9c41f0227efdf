//! Lua scripts: called by hash, all calls in one round trip, loaded if the server lacks them.

use millrace_contracts::StoreError;
use redis::aio::ConnectionManager;
use redis::{Cmd, FromRedisValue, RedisResult, Script};

use super::error::{classify, is_no_script};

/// A script and its hash.
pub(super) struct CachedScript {
    code: &'static str,
    script: Script,
}

impl CachedScript {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, script: Script::new(code) }
    }

    /// A call with `keys` keys. The caller adds keys and arguments.
    pub(super) fn call(&self, keys: usize) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.script.get_hash()).arg(keys);
        call
    }

    /// Runs the calls in one round trip, with one independent result each. Repeats the calls that failed for lack of the
    /// script, which had no effect, after loading it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut ConnectionManager,
        calls: &[Cmd],
    ) -> Result<Vec<RedisResult<T>>, StoreError> {
        let mut replies = run(connection, calls.iter()).await?;
        let missing: Vec<usize> =
            (0..replies.len()).filter(|&i| replies[i].as_ref().is_err_and(is_no_script)).collect();
        if !missing.is_empty() {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(self.code);
            let _: String = load.query_async(connection).await.map_err(classify)?;
            let repeated = run(connection, missing.iter().map(|&i| &calls[i])).await?;
            for (i, reply) in missing.into_iter().zip(repeated) {
                replies[i] = reply;
            }
        }
        Ok(replies)
    }
}

async fn run<T: FromRedisValue>(
    connection: &mut ConnectionManager,
    calls: impl Iterator<Item = &Cmd>,
) -> Result<Vec<RedisResult<T>>, StoreError> {
    let mut pipe = redis::pipe();
    pipe.ignore_errors();
    for call in calls {
        pipe.add_command(call.clone());
    }
    pipe.query_async(connection).await.map_err(classify)
}
