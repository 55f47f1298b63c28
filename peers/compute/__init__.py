"""What a peer computes, and the memory that it promises."""
