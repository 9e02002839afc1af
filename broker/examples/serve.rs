//! A broker by itself, for trying clients against it and for the benchmark beside mosquitto: `serve
//! [address [state folder]]`. The accounts `admin`, `viewer` and `home` have their names as
//! passwords, and so does every agent `pi-0` to `pi-9999`: nothing for a network.

use std::path::PathBuf;

use pistat_broker::{Bounds, Broker, BrokerConfig, Directory, Limits};
use pistat_protocol::account::Role;
use sha2::{Digest, Sha256};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    let state = arguments.next().map(PathBuf::from);
    let bounds = Bounds { connections_per_account: 10_000, ..Bounds::default() };
    let limits = Limits { bounds, ..Limits::default() };
    let config = BrokerConfig { listen: Some(listen), state, limits, ..BrokerConfig::default() };
    let (mut broker, mut events) = Broker::start(config, directory()?).await?;
    println!("{}", broker.addresses().mqtt.ok_or("no port")?);
    let show_events = std::env::var_os("SHOW_EVENTS").is_some();
    loop {
        tokio::select! {
            event = events.recv() => if show_events { eprintln!("{event:?}") },
            error = broker.failed() => return Err(error.into()),
            signal = tokio::signal::ctrl_c() => {
                signal?;
                broker.shutdown().await;
                return Ok(());
            }
        }
    }
}

fn directory() -> Result<Directory, Box<dyn std::error::Error>> {
    let hash = |text: &str| -> [u8; 32] { Sha256::digest(text).into() };
    let mut directory = Directory::new();
    directory.controller(hash("controller"));
    directory.account("admin".parse()?, Role::Admin, hash("admin"), vec![], vec![]);
    directory.account("viewer".parse()?, Role::Viewer, hash("viewer"), vec![], vec![]);
    let anything = || vec!["#".to_owned()];
    directory.account("home".parse()?, Role::Viewer, hash("home"), anything(), anything());
    for number in 0..10_000 {
        let name = format!("pi-{number}");
        directory.agent(name.parse()?, hash(&name));
    }
    Ok(directory)
}
