"""The only importer of Unsloth: a base with LoRA for training, anything for inference, and what a base decides."""
