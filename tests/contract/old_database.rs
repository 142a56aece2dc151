//! A database that KernelCI wrote, in both of its shapes (contract 7.5).
