//! Whether the tool can be believed: between it and a broker stands a proxy that drops, doubles, reorders, delays and
//! mis-delivers, and the tool's report must say so with the right figures. The proxy keeps books of its own.

mod answers;
mod book;
mod broken;
mod connections;
mod deliveries;
mod proxy;
mod run;
mod scripted;
mod shares;
mod slow;
mod times;
