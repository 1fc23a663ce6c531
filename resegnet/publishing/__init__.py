"""Publishing a release on the Hugging Face Hub: model card, pictures, upload, Space."""
