"""What a peer computes, and all that it promises in bytes."""
