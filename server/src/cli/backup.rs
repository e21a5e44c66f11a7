//! `petrel backup` and `petrel restore`. A backup is written beside its name, synced, read back and checked, and only then gets its
//! name; a restore works on a data directory that no server uses and leaves everything held.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use petrel_agent::error_chain::chain;
use reqwest::{Method, Response};
use serde_json::json;

use super::connection::{Connection, unreached};
use super::progress::{Progress, size};
use super::{BackupArgs, RestoreArgs, client, exit};
use crate::api::backup::HEADER_BYTES;
use crate::config::{Overrides, Reload};
use crate::remedy;
use crate::series::Timestamp;
use crate::store::archive::Contents;
use crate::store::restore::{self, RestoreError};

/// Takes a backup of a running server. Returns the exit code.
///
/// # Errors
/// The command line is wrong, or the file cannot be written.
pub async fn backup(args: &BackupArgs) -> anyhow::Result<u8> {
    if args.file.exists() && !args.overwrite {
        eprintln!("petrel: {} is there already; choose another name, or say --overwrite", args.file.display());
        return Ok(exit::NO);
    }
    let connection = Connection::new(&args.server)?;
    let asked = connection.request(Method::GET, ["petrel", "v1", "admin", "backup"]).send().await;
    let response = match asked {
        Ok(response) => response,
        Err(error) => return Ok(unreached(&args.server.server, error)),
    };
    if !response.status().is_success() {
        return client::refused(response).await;
    }
    let partial = beside(&args.file);
    let taken = match receive(response, &partial).await {
        Ok(()) => restore::check(&partial).map_err(|error| anyhow::anyhow!(chain(&error))),
        Err(error) => Err(error),
    };
    let contents = match taken {
        Ok(contents) => contents,
        Err(error) => {
            // It is no backup; where it cannot be removed, its name says what it is.
            let _ = std::fs::remove_file(&partial);
            eprintln!("petrel: no backup was made: {error:#}");
            return Ok(exit::NO);
        }
    };
    std::fs::rename(&partial, &args.file).with_context(|| format!("{} cannot be written", args.file.display()))?;
    sync_folder(&args.file)?;
    tell_backup(&args.file, &contents, args.server.json);
    Ok(exit::DONE)
}

/// Restores a backup into a data directory. Returns the exit code.
///
/// # Errors
/// The command line or the config is wrong.
pub fn restore(args: &RestoreArgs, now: Timestamp) -> anyhow::Result<u8> {
    let dir = data_directory(args.config.as_deref(), args.data.as_deref())?;
    eprintln!("petrel: {} is checked and then restored into {}", args.file.display(), dir.display());
    let done = restore::restore(&args.file, &dir, args.replace, now, &|tx| remedy::journal::restored(tx, now));
    match done {
        Ok(restored) => {
            println!("Restored into {}: {}.", dir.display(), content_words(&restored.contents));
            if let Some(aside) = restored.replaced {
                println!("What stood there is in {}; delete it when you do not need it.", aside.display());
            }
            println!("Everything is held: no action is taken until you say `petrel hold off`.");
            Ok(exit::DONE)
        }
        Err(error) => {
            eprintln!("petrel: {}", chain(&error));
            if matches!(error, RestoreError::Lock(_)) {
                eprintln!("Stop that server, restore, and start it again.");
            }
            Ok(exit::NO)
        }
    }
}

/// The data directory that a server with these options would use.
///
/// # Errors
/// The config has mistakes.
pub fn data_directory(config: Option<&Path>, data: Option<&Path>) -> anyhow::Result<PathBuf> {
    let overrides = Overrides { data: data.map(Path::to_owned), ..Overrides::default() };
    match (Reload { path: config.map(Path::to_owned), overrides }).read() {
        Ok(config) => Ok(config.data),
        Err(problems) => bail!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

async fn receive(mut response: Response, partial: &Path) -> anyhow::Result<()> {
    let expected = response.headers().get(HEADER_BYTES).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut progress = Progress::default();
    let mut file = File::create(partial).with_context(|| format!("{} cannot be written", partial.display()))?;
    let mut received = 0u64;
    while let Some(part) = response.chunk().await.context("the server broke off; its log says why")? {
        file.write_all(&part).with_context(|| format!("{} cannot be written", partial.display()))?;
        received += part.len() as u64;
        progress.tell(|| match expected {
            Some(expected) => format!("{} of about {}", size(received), size(expected)),
            None => size(received),
        });
    }
    progress.end();
    file.sync_all().with_context(|| format!("{} cannot be synced", partial.display()))
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

fn sync_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).context("the backup's folder cannot be synced")
}

fn tell_backup(file: &Path, contents: &Contents, as_json: bool) {
    if as_json {
        let bytes: u64 = contents.files.iter().map(|(_, bytes)| bytes).sum();
        let told = json!({ "file": file, "made_at": contents.manifest.made_at, "databases": contents.files.len(), "bytes": bytes });
        println!("{told:#}");
    } else {
        println!("{}: {}, checked.", file.display(), content_words(contents));
    }
}

fn content_words(contents: &Contents) -> String {
    let bytes = contents.files.iter().map(|(_, bytes)| bytes).sum();
    let made = chrono::DateTime::from_timestamp_millis(contents.manifest.made_at)
        .map_or_else(|| "an unknown time".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string());
    format!("{} databases, {}, of {made}", contents.files.len(), size(bytes))
}
