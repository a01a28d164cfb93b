"""HTTP servers, as gateway, embedded store and inference server run them."""
