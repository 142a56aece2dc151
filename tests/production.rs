//! What only the production back end has: KernelCI's own database, several instances, Redis that forgets, and
//! instances that die between the steps of the relay.

mod atomic;
mod interleavings;
mod large_nodes;
mod layout;
mod loss;
mod relay;
mod secondary;
mod standalone;
mod support;
mod time;
