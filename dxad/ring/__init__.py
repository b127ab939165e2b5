"""The recent past of one source: samples staged, folded into slots, sealed, remembered."""
