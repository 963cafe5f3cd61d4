//! Runs rumqttd, the library, with a configuration file: what its own binary does, without its logging and console.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: rumqttd-peer FILE")?;
    let config: rumqttd::Config = toml::from_str(&std::fs::read_to_string(path)?)?;
    rumqttd::Broker::new(config).start()?;
    Ok(())
}
