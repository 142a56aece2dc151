// The address of the viewer's script before it was in modules. Loads the present one, however it was asked for.
import("/static/pages/viewer.js");
