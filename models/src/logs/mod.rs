//! Log templates: the constant part of a line, mined online with bounded memory.
