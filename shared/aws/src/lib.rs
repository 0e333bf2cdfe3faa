//! The edges towards AWS: tables, queue, control plane.
