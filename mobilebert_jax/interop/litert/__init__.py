"""LiteRT flatbuffers, float and quantised to int8."""
