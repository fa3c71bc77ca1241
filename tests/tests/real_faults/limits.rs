//! Limits of the operating system: descriptors, memory, socket buffers.
