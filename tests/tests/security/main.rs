//! What strangers, callers and other customers can't do, over the real wire.

mod exhaustion;
mod front;
mod isolation;
mod outage;
mod planted;
mod wire;
