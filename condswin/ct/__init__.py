"""CT: liver and tumour segmentation from NIfTI volumes, judged per patient in the scanner's geometry."""
