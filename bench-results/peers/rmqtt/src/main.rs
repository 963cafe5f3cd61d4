//! Runs rmqtt, the library, on one address: what its own program does, without its configuration files, logging and
//! plugins for other systems. Retained messages stay in memory, shared subscriptions are on.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Messages that may be unacknowledged at a client: what Millstream allows by default.
const MAX_INFLIGHT: NonZeroU16 = NonZeroU16::new(64).unwrap();

/// Messages that may wait for a client: what Millstream allows by default.
const MAX_QUEUED: usize = 10_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address: SocketAddr = std::env::args().nth(1).ok_or("usage: rmqtt-peer ADDRESS")?.parse()?;
    let context = ServerContext::new()
        .plugins_config_map_add("rmqtt-retainer", "storage.type = \"ram\"")
        .plugins_config_map_add("rmqtt-shared-subscription", "")
        // It would refuse connections while the machine is busy, and a measure keeps the machine busy.
        .busy_check_enable(false)
        .build()
        .await;
    rmqtt_retainer::register(&context, true, false).await?;
    rmqtt_shared_subscription::register(&context, true, false).await?;
    let listener = Builder::new()
        .name("tcp")
        .laddr(address)
        .nodelay(true)
        .max_inflight(MAX_INFLIGHT)
        .max_mqueue_len(MAX_QUEUED)
        .bind()?
        .tcp()?;
    MqttServer::new(context).listener(listener).build().run().await?;
    Ok(())
}
